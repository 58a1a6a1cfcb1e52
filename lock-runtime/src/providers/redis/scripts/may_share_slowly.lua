-- Those that wait may be dead.
purge()
serve()
return redis.call('EXISTS', lock, waiters) == 0 and 1 or 0
