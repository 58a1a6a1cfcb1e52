-- Takes an upgrade back: the reader is what it was. Those who were kept out go on.
-- KEYS: as for acquiring.
-- ARGV: the owner that was to write, the reader's owner, the number of the upgrade, and the reader's
-- lease in ms, or nothing if it is not to be one any more. Answers 1.
local writer, owner = ARGV[1], ARGV[2]
local before = redis.pcall('GET', lock)
if before == writer then
  redis.call('DEL', lock)
  -- It had been made the writer, and nobody was told.
  if ARGV[4] ~= '' then let_in(owner, ARGV[4], 'u') end
elseif before == writer .. UPGRADE then
  redis.call('DEL', lock)
end
if upgrader() == owner then
  -- A request that is late does not begin it again.
  local number = string.format('%s|%.0f||', owner, ARGV[3] + 1)
  redis.call('SET', upgrading, number, 'KEEPTTL')
end
pcall(purge)
serve()
return 1
