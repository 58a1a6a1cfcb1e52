-- Releases and takes locks, many in one call. What only a lock with waiters or another holder needs
-- comes after this part.
-- KEYS: the fencing counter; the locks; their waiters, in the same order.
-- ARGV: how many locks are released, how many are taken, and how many are passed on, in this order;
-- how many forms there are; each form's lease in ms, tokens wanted and channel, as for acquiring;
-- the owners that release; owner and number of the form of each that takes a lock; the same and the
-- owner that gives the lock up of each that is passed on.
-- Answers with the first token of those that took a lock at once, and an answer for each lock: how
-- many had taken one before and with it, or as the script for one lock answers.
local releases, takes, passes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local count = releases + takes + passes
local owners = 4 + 3 * tonumber(ARGV[4])
-- If nobody waits for any, one look is enough.
local waited = redis.pcall('EXISTS', unpack(KEYS, count + 2)) ~= 0
local function is_waited(at)
  return waited and redis.pcall('EXISTS', KEYS[1 + count + at]) ~= 0
end

-- What is left to do slowly, and what a first try has said.
local answers, slow, took = { false }, {}, {}

local free = {}
for at = 1, releases do
  local holder = redis.pcall('GET', KEYS[1 + at])
  if holder ~= ARGV[owners + at] then
    answers[1 + at] = type(holder) == 'table' and holder or 0
  elseif is_waited(at) then
    slow[#slow + 1] = at
  else
    free[#free + 1] = KEYS[1 + at]
    answers[1 + at] = 1
  end
end

local granted = {}
for at = releases + 1, releases + takes do
  local argument = owners + 2 * at - releases - 1
  local form = 2 + 3 * ARGV[argument + 1]
  took[at] = redis.pcall('SET', KEYS[1 + at], ARGV[argument], 'NX', 'PX', ARGV[form])
  if took[at] and not took[at].err and ARGV[form + 1] == '1' and not is_waited(at) then
    granted[#granted + 1] = at
  else
    slow[#slow + 1] = at
  end
end

if #free > 0 then
  -- Only now: a server whose memory is full takes all that a script writes after its first write.
  local deleted = redis.pcall('DEL', unpack(free))
  if type(deleted) == 'table' then
    for at = 1, releases do
      if answers[1 + at] == 1 then answers[1 + at] = deleted end
    end
  end
end

local time = #granted > 0 and redis.pcall('TIME')
if time and time.err then
  for _, at in ipairs(granted) do slow[#slow + 1] = at end
elseif time then
  local now = time[1] * 1000000 + time[2]
  local text = string.format('%.0f', now)
  -- Tells what the counter was. Its life is renewed with every connection.
  local last = redis.pcall('SET', KEYS[1], text, 'KEEPTTL', 'GET')
  local first = string.format('%.0f', now - #granted + 1)
  if type(last) == 'string' and #last == #first and last < first then
    answers[1] = first
    for index, at in ipairs(granted) do answers[1 + at] = index end
  else
    if type(last) == 'string' then redis.pcall('SET', KEYS[1], last, 'KEEPTTL') end
    for _, at in ipairs(granted) do slow[#slow + 1] = at end
  end
end
if #slow == 0 and passes == 0 then return answers end
