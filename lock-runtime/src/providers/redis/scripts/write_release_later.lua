-- Has a writer's lock end after a while, by itself.
-- KEYS: as for acquiring. ARGV: owner, what is left in ms, the value of the lock until then.
-- Answers 1, or 0 if somebody else holds the lock or nobody does.
local holder = redis.call('GET', lock)
-- The answer to the first request was lost.
if holder == ARGV[3] then return 1 end
if holder ~= ARGV[1] then return 0 end
-- First what needs no memory: a server that has none left lets a script go on that has begun.
redis.call('PEXPIRE', lock, ARGV[2])
-- The owner's own requests, such as a renewal that is still on its way, change nothing any more.
redis.call('SET', lock, ARGV[3], 'KEEPTTL')
-- The head of the queue looks anew when the lock ends, and the next one in case the head is dead
-- although somebody listens to its channel.
tell_the_first(2)
return 1
