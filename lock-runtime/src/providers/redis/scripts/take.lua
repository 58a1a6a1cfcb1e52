-- After `SET NX`: what the owner gets. Where the lock was free although somebody waits, because
-- its holder crashed or is foreign, the head of the queue comes first. A server whose memory is
-- full refuses the `SET`, but not what was granted already. Nobody waits for a value that never
-- expires: no lock is like that. Who must wait is answered with the lock's remaining time, the place
-- in the queue, the holder, the last token that a grant before this moment has, and the entry.
local function take_or_wait(took, owner, lease, tokens, channel, entry)
  local holder
  if took and not took.err then
    holder = hand_over(owner)
    if not holder or holder == owner then return { take_tokens(tonumber(tokens)) } end
  else
    holder = redis.pcall('GET', lock)
    if holder == owner then
      -- It was handed over, or the answer that said so was lost.
      redis.call('PEXPIRE', lock, lease)
      return { take_tokens(tonumber(tokens)) }
    elseif took then
      return took
    elseif type(holder) ~= 'string' then
      -- Nor is what is no string.
      if not string.find(holder.err, 'WRONGTYPE', 1, true) then return holder end
      local is_semaphore = type(redis.pcall('ZCARD', lock)) == 'number'
      return { 'held', is_semaphore and -4 or -3, '' }
    end
    -- Somebody may keep a book there.
    holder = string.sub(holder, 1, 128)
  end
  local left = redis.call('PTTL', lock)
  if channel == '' or left == -1 then return { 'held', left, holder } end
  local place, mine = stand_in_line(owner, lease, tokens, channel, entry)
  return { left, place, holder, read_counter(fence) or clock(), mine }
end
