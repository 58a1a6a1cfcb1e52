-- Extends the lease. KEYS: the lock. ARGV: owner, lease in ms.
-- Answers 1; or 0 if nobody holds the lock, -1 if somebody else does, -2 if what stands there never
-- expires.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if not holder then return 0 end
return redis.call('PTTL', KEYS[1]) == -1 and -2 or -1
