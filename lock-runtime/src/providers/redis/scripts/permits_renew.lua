-- Extends the lease of permits. KEYS: as for acquiring. ARGV: owner, lease in ms, limit,take.
-- Answers 1, or 0 if the owner does not have them all any more; then it has none.
local left = redis.call('PTTL', KEYS[1])
if string.sub(ARGV[3], -2) == ',1' and left > 0 then
  local time = redis.call('TIME')
  local at = time[1] * 1000 + math.floor(time[2] / 1000)
  -- A write that needs no memory: a server that has none left lets a script go on that has begun.
  if redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', at) == 0
      and redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    redis.call('ZADD', KEYS[1], at + ARGV[2], ARGV[1])
    if left < 3 * ARGV[2] then redis.call('PEXPIRE', KEYS[1], 3 * ARGV[2]) end
    return 1
  end
end
