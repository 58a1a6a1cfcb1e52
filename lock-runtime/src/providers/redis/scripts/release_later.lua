-- Has the lock end after a while, by itself.
-- KEYS: the lock, its waiters. ARGV: owner, what is left in ms, the value of the lock until then.
-- Answers 1, or 0 if somebody else holds the lock or nobody does.
local holder = redis.call('GET', KEYS[1])
-- The answer to the first request was lost.
if holder == ARGV[3] then return 1 end
if holder ~= ARGV[1] then return 0 end
-- First what needs no memory: a server that has none left lets a script go on that has begun.
redis.call('PEXPIRE', KEYS[1], ARGV[2])
-- The owner's own requests, such as a renewal that is still on its way, change nothing any more.
redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
-- The head of the queue looks anew when the lock ends, and the next one in case the head is dead
-- although somebody listens to its channel.
local place, told = 0, 0
while told < 2 do
  local entry = redis.pcall('LINDEX', KEYS[2], place)
  if type(entry) ~= 'string' then break end
  local owner, channel = string.match(entry, '^([^|]+)|(.*)|%d+|%d+|%d+$')
  local heard = owner and redis.pcall('PUBLISH', channel, owner .. '|0|0')
  if type(heard) == 'number' and heard > 0 then told = told + 1 end
  place = place + 1
end
return 1
