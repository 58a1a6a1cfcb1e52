-- Gives permits back, and hands them to whoever waits.
-- KEYS: as for acquiring. ARGV: owner, and limit,take.
-- Answers 1, or 0 if the owner did not have them all any more.
if string.sub(ARGV[2], -2) == ',1' and redis.call('EXISTS', KEYS[2]) == 0 then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
