-- Gives permits back, and hands them to whoever waits.
-- KEYS: as for acquiring. ARGV: owner, and limit,take.
-- Answers 1, or 0 if the owner did not have them all any more.
local take = tonumber(string.match(ARGV[2], ',(%d+)$'))
if take <= 100 and redis.call('EXISTS', KEYS[2]) == 0 then
  local permits = { ARGV[1] }
  for number = 2, take do permits[number] = ARGV[1] .. '#' .. number end
  return redis.call('ZREM', KEYS[1], unpack(permits)) == take and 1 or 0
end
