-- Extends the owner's lease, or gives it the vote of a server that has forgotten it.
-- KEYS: the lock, its waiters, the fencing counter.
-- ARGV: owner, lease in ms, the owner's token, and 1 if this server may vote.
-- Answers 1; 0 if nobody has the vote, -1 if somebody else does.
local holder = redis.pcall('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if holder then return -1 end
if ARGV[4] ~= '1' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if (read_counter(KEYS[3]) or 0) < tonumber(ARGV[3]) then
  redis.call('SET', KEYS[3], ARGV[3], 'PX', 691200000)
end
return 1
