-- Gives the lock to the next waiter and queues again behind it; with nobody waiting, goes on as a
-- new owner with a new lease.
-- KEYS: the lock, its waiters, the fencing counter.
-- ARGV: as for acquiring, with the owner that gives the lock up before the entry. Answers as
-- acquiring does.
if redis.pcall('GET', lock) == ARGV[5] then give_up(ARGV[5]) end
local took = redis.pcall('SET', lock, ARGV[1], 'NX', 'PX', ARGV[2])
return take_or_wait(took, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6])
