-- Takes back whatever an acquisition left: the entry in the queue, and a grant that came.
-- KEYS: as for acquiring. ARGV: owner, its mode, if that is known, and the entry that it had, if
-- that is known. Answers 1 if there was anything.
local owner, place = ARGV[1], nil
local at = ARGV[3] and redis.pcall('LPOS', waiters, ARGV[3])
if type(at) == 'number' then
  redis.call('LREM', waiters, 1, ARGV[3])
  place = at
else
  for index, entry in ipairs(redis.pcall('LRANGE', waiters, 0, -1)) do
    if parts(entry) == owner then
      redis.call('LREM', waiters, 1, entry)
      place = place or index - 1
    end
  end
end
-- Somebody may have put something else there; then the queue is left all the same.
local _, held = pcall(let_go, owner, ARGV[2])
if held == true or place then
  pcall(purge)
  local _, passed = serve(nil, owner)
  -- Some things only the head of the queue looks for: that a foreign holder is gone, or that a lock
  -- which is kept is free.
  if place == 0 and passed == 0 then tell_the_first(1) end
end
return (held == true or place) and 1 or 0
