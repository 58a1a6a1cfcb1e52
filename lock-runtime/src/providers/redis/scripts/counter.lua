-- The server's clock in microseconds.
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- What the fencing counter says; nil if tokens cannot go on from there, and start again at the
-- clock: no token was above it. It was deleted or evicted, is no number, is far below the clock, or
-- is so far above it that numbers here, which are floating, skip some of its steps.
local function read_counter(key)
  local text = redis.pcall('GET', key)
  local counter = type(text) == 'string' and string.match(text, '^[1-9]%d*$') and tonumber(text)
  if counter and counter >= 1e15 and counter < 9e15 then return counter end
end
