-- Raises the fencing counter to the server's clock in microseconds, and renews its life.
-- KEYS: the fencing counter.
local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local counter = math.max(read_counter(KEYS[1]) or 0, clock)
redis.call('SET', KEYS[1], string.format('%.0f', counter), 'PX', 691200000)
return 1
