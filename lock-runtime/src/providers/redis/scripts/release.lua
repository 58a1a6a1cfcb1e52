-- Gives the lock to the next waiter, or deletes it.
-- KEYS: the lock, its waiters, the fencing counter. ARGV: owner.
-- Answers 1, or 0 if somebody else holds the lock or nobody does.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 then return redis.call('DEL', KEYS[1]) end
