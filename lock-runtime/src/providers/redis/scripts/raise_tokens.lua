-- Raises the fencing counter to the server's clock in microseconds, put forward as far as tokens are
-- to be above it, and renews its life.
-- KEYS: the fencing counter. ARGV: by how much.
local counter = math.max(read_counter(KEYS[1]) or 0, clock() + tonumber(ARGV[1]))
local set = { 'SET', KEYS[1], string.format('%.0f', counter), 'PX', 691200000 }
if redis.pcall(unpack(set)).err then
  -- A server whose memory is full refuses a script's first write if that may need some. Whoever
  -- comes back to renew a lock must be let in.
  redis.call('PEXPIRE', KEYS[1], 691200000)
  redis.call(unpack(set))
end
return 1
