-- Takes one lock after another, up to the first that is held. Nobody queues. What only a lock with
-- waiters or another holder needs comes after this part.
-- KEYS: the fencing counter; the locks; their waiters, in the same order. ARGV: of each lock its
-- owner, lease in ms and tokens wanted.
-- Answers for each lock as the script for one does, up to the first that was not taken.
local count = #ARGV / 3
local answers, took = {}, {}
-- How many of the first were free. If nobody waits for any, one look is enough.
local free = 0
if redis.pcall('EXISTS', unpack(KEYS, count + 2)) == 0 then
  for at = 1, count do
    took[at] = redis.pcall('SET', KEYS[1 + at], ARGV[3 * at - 2], 'NX', 'PX', ARGV[3 * at - 1])
    if not took[at] or took[at].err or ARGV[3 * at] ~= '1' then break end
    free = at
  end
end

local time = free > 0 and redis.pcall('TIME')
if not time or time.err then
  free = 0
else
  local now = time[1] * 1000000 + time[2]
  -- Tells what the counter was. Its life is renewed with every connection.
  local last = redis.pcall('SET', KEYS[1], string.format('%.0f', now), 'KEEPTTL', 'GET')
  local first = string.format('%.0f', now - free + 1)
  if type(last) == 'string' and #last == #first and last < first then
    for at = 1, free do answers[at] = { now - free + at, 1 } end
    if free == count then return answers end
  else
    if type(last) == 'string' then redis.pcall('SET', KEYS[1], last, 'KEEPTTL') end
    free = 0
  end
end
