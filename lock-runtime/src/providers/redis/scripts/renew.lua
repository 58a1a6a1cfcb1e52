-- Extends the lease. KEYS: the lock. ARGV: owner, lease in ms.
-- Answers 1; or 0 if nobody holds the lock, -1 if somebody else does.
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return holder and -1 or 0
