-- Lets a reader or a writer in, or has it queue.
-- KEYS: the writer, the waiters, the fencing counter, the readers, the ends of those that are ours,
-- the one that may upgrade.
-- ARGV: owner, lease in ms, tokens wanted, channel for the grant; no channel: does not queue; the
-- mode: r, w, or u for a reader that may upgrade. When asked again: the entry that it had in the queue, or nothing if it may have one.
-- Answers as the script for a mutex does.
local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
local is_reader = ARGV[5] == 'r'
if ARGV[3] == '1' and ARGV[5] ~= 'u' and redis.call('EXISTS', KEYS[1], KEYS[2]) == 0
    and #redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', at, 'LIMIT', 0, 1) == 0
    and (is_reader or redis.call('EXISTS', KEYS[4]) == 0) then
  if is_reader then
    redis.call('SADD', KEYS[4], ARGV[1])
    if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[2]) then
      redis.call('PEXPIRE', KEYS[4], ARGV[2])
    end
    redis.call('ZADD', KEYS[5], at + ARGV[2], ARGV[1])
    redis.call('PEXPIRE', KEYS[5], 86400000)
  else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  end
  local now = time[1] .. string.sub('00000' .. time[2], -6)
  -- Tells what the counter was. Its life is renewed with every connection.
  local last = redis.pcall('SET', KEYS[3], now, 'KEEPTTL', 'GET')
  if type(last) == 'string' then
    if #last == #now and last < now then return now end
    redis.call('SET', KEYS[3], last, 'KEEPTTL')
  end
end
