-- Gives the lock to the next waiter and queues again behind it; with nobody waiting, goes on as a
-- new owner with a new lease.
-- KEYS: the lock, its waiters, the fencing counter.
-- ARGV: as for acquiring, and the owner that gives the lock up. Answers as acquiring does.
local held = redis.call('GET', KEYS[1]) == ARGV[5]
if held and redis.call('EXISTS', KEYS[2]) == 0 then
  local last = redis.call('INCRBY', KEYS[3], ARGV[3])
  if last >= 1e15 then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return last - ARGV[3] + 1
  end
end
