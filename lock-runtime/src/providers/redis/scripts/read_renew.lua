-- Extends a reader's lease. KEYS: as for acquiring. ARGV: owner, lease in ms, the mode.
-- Answers 1, or 0 if the owner does not hold the lock any more.
local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == 'r' and #redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', at, 'LIMIT', 0, 1) == 0
    and redis.call('SISMEMBER', KEYS[4], ARGV[1]) == 1
    and redis.call('ZSCORE', KEYS[5], ARGV[1]) then
  -- First what needs no memory: a server that has none left lets a script go on that has begun.
  redis.call('PEXPIRE', KEYS[5], 86400000)
  if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[4], ARGV[2])
  end
  redis.call('ZADD', KEYS[5], at + ARGV[2], ARGV[1])
  return 1
end
