-- Makes the writer of a reader that may upgrade, or has it wait until the others have left.
-- KEYS: as for acquiring.
-- ARGV: the owner that is to write, its lease in ms, tokens wanted, channel to be told to look; no
-- channel: does not wait; the reader's owner, and the number of this upgrade among its own.
-- Answers as acquiring does, or 0 if there is no such reader.
local writer, lease, tokens, channel, owner = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local left, holder = no_lock(), ''
if left then return { 'held', left, holder } end
purge()
-- The answer that said so was lost.
if extend(writer, lease, 'w') then return { new_number(tokens) } end
local may, begun = upgrader()
-- A request that is late must not begin what was taken back.
if may ~= owner or redis.call('SISMEMBER', readers, owner) == 0
    or tonumber(ARGV[6]) < tonumber(begun) then
  return 0
end
local before = redis.pcall('GET', lock)
-- Whoever only waits for the readers comes after this one.
local is_open = not before or type(before) == 'string'
  and (string.sub(before, -#MARK) == MARK or string.sub(before, -#UPGRADE) == UPGRADE)
if is_open and redis.call('SCARD', readers) == 1 then
  -- First what needs no memory: a server that has none left lets a script go on that has begun.
  redis.call('SREM', readers, owner)
  redis.call('ZREM', ends, owner)
  redis.call('DEL', upgrading)
  redis.call('SET', lock, writer, 'PX', lease)
  return { new_number(tokens) }
end
if not is_open then
  left, holder = redis.call('PTTL', lock), string.sub(before, 1, 128)
elseif has_foreign() then
  left, holder = -2, ''
else
  for _, other in ipairs(redis.call('ZRANGE', ends, 0, 1)) do
    if other ~= owner and not left then
      left, holder = redis.call('ZSCORE', ends, other) - now, other
    end
  end
end
if channel == '' then return { 'held', left, holder } end
if is_open then redis.call('SET', lock, writer .. UPGRADE, 'PX', lease) end
redis.call(
  'SET', upgrading, string.format('%s|%s|%s|%s', owner, ARGV[6], writer, channel), 'KEEPTTL'
)
return { left, 0, holder, last_number(), '' }
