-- Gives this server's vote to the owner, if nobody else has it.
-- KEYS: the lock, its waiters, the fencing counter.
-- ARGV: owner, lease in ms, tokens wanted, the last token that is proposed, and the owner's name
-- without the number of its attempt. What it had in an earlier attempt is its own too.
-- Answers with the first token, the last, and the server's clock; or, if somebody else has the vote,
-- with 'held', the remaining time (-3 for what is no string) and the holder.
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'table' then return { 'held', -3, '' } end
if holder and holder ~= ARGV[5] and string.sub(holder, 1, #ARGV[5] + 1) ~= ARGV[5] .. '#' then
  -- Somebody may keep a book there.
  return { 'held', redis.call('PTTL', KEYS[1]), string.sub(holder, 1, 128) }
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local now = clock()
local before = read_counter(KEYS[3]) or now - 1
local last = math.max(before + 1, now, tonumber(ARGV[4]))
redis.call('SET', KEYS[3], string.format('%.0f', last), 'PX', 691200000)
return { math.max(before + 1, last - ARGV[3] + 1), last, now }
