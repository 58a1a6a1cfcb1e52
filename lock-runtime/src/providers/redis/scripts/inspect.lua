-- Tells who holds a lock, and how many wait. It changes nothing.
-- KEYS: as for acquiring. ARGV: the kind: mutex, rw or permits.
-- Answers with how many wait, and then for each holder its value, its remaining time in ms, and r, u
-- or w; with -1 if what stands there is no lock of this kind.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local answer = { 0 }
local function add(holder, left, mode)
  answer[#answer + 1] = { string.sub(holder, 1, 128), string.format('%.0f', left), mode }
end

local waiters = redis.pcall('LRANGE', KEYS[2], 0, -1)
for _, entry in ipairs(waiters) do
  -- Every entry ends with the moment until which its waiter is alive.
  local ends = string.match(entry, '|(%d+)$')
  if ends and tonumber(ends) > now then answer[1] = answer[1] + 1 end
end

if ARGV[1] == 'permits' then
  local members = redis.pcall('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'WITHSCORES')
  -- A set that never expires is somebody's book.
  if members.err or redis.call('PTTL', KEYS[1]) == -1 then return -1 end
  for at = 1, #members, 2 do add(members[at], members[at + 1] - now, '') end
  return answer
end

local value = redis.pcall('GET', KEYS[1])
-- A value that never expires is no lock of anybody's.
if type(value) == 'table' or redis.call('PTTL', KEYS[1]) == -1 then return -1 end
-- What a writer who waits leaves there, or an upgrade, keeps others out, but it is no holder.
local is_mark = ARGV[1] == 'rw' and value
  and (string.sub(value, -14) == '_WRITERWAITING' or string.sub(value, -15) == '_UPGRADEWAITING')
if value and not is_mark then
  add(value, redis.call('PTTL', KEYS[1]), 'w')
end
if ARGV[1] == 'rw' then
  local ours = redis.pcall('ZRANGEBYSCORE', KEYS[5], '(' .. now, '+inf', 'WITHSCORES')
  local count = redis.pcall('SCARD', KEYS[4])
  if ours.err or type(count) == 'table' then return -1 end
  local may = redis.pcall('GET', KEYS[6])
  may = type(may) == 'string' and string.match(may, '^[^|]+')
  for at = 1, #ours, 2 do
    add(ours[at], ours[at + 1] - now, ours[at] == may and 'u' or 'r')
  end
  -- Readers of other libraries are only counted: they say nothing about themselves.
  local known = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', '+inf')
  for _ = 1, count - #known do add('', redis.call('PTTL', KEYS[4]), 'r') end
end
return answer
