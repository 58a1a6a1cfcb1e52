-- What the scripts share. KEYS: the lock, its waiters, the fencing counter.

local lock, waiters, fence = KEYS[1], KEYS[2], KEYS[3]

-- New fencing tokens: the first, and how many. They are the clock's: what a server never heard of,
-- because another one granted it, was before. Several only as far as the clock has moved on since
-- the last: single grants cost more than a microsecond each and cannot outrun it, blocks could.
local function take_tokens(wanted, now)
  now = now or clock()
  local last = read_counter(fence) or now
  local count = math.max(1, math.min(wanted, now - last))
  local first = math.max(last + 1, now - count + 1)
  redis.call('SET', fence, string.format('%.0f', first + count - 1), 'PX', 691200000)
  return first, count
end

