-- Has permits end after a while, by themselves.
-- KEYS: as for acquiring. ARGV: owner, what is left in ms, the owner until then, limit,take.
-- Answers 1, or 0 if the owner does not have them all any more; then it has none.
local _, take = numbers(ARGV[4])
-- The answer to the first request was lost.
if redis.call('ZSCORE', lock, ARGV[3]) then return 1 end
purge()
if not let_go(ARGV[1], ARGV[4]) then
  serve(nil, ARGV[1])
  return 0
end
-- The owner's own requests, such as a renewal that is still on its way, change nothing any more.
-- The clock was cut to whole milliseconds, which must not make it shorter.
local left = ARGV[2] + 1
put(ARGV[3], take, now + left)
live_at_least(left)
-- The head of the queue looks anew when they end, and the next one in case the head is dead
-- although somebody listens to its channel.
tell_the_first(2)
return 1
