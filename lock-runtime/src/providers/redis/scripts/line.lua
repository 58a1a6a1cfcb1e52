-- Drops the entries that have expired, and those without sense, down to that place; returns the
-- owner's place, if it has one there. Looking at all of them here costs a thousand times what the
-- server's own search does, and nothing else is served meanwhile.
local function look_through(owner, now, last)
  local place, mine = 0, nil
  for _, entry in ipairs(redis.call('LRANGE', waiters, 0, last)) do
    local other, _, _, _, expires = parts(entry)
    if other == owner and not mine then
      mine = place
      place = place + 1
    elseif not other or other == owner or tonumber(expires) <= now then
      redis.call('LREM', waiters, -1, entry)
    else
      place = place + 1
    end
  end
  return mine
end

-- The place of the owner whose entry was this when it last heard of it; empty if it does not know.
-- The head of the queue drops what has expired, and whoever finds a head that has: a part each
-- time, as the rest comes up later.
local function place_of(owner, entry, now)
  if entry == '' then return look_through(owner, now, -1) end
  local place = redis.call('LPOS', waiters, entry)
  if place and place > 0 then
    local _, _, _, _, expires = parts(redis.call('LINDEX', waiters, 0))
    if expires and tonumber(expires) > now then return place end
  end
  return look_through(owner, now, 99) or place and redis.call('LPOS', waiters, entry)
end

-- Puts the owner's entry into the queue, or a fresh one in the place of that which it had. An entry
-- begins with the mode, if there are several. Returns the place and the entry.
local function stand_in_line(owner, lease, tokens, channel, entry, mode)
  local now = math.floor(clock() / 1000)
  local mine = string.format('%s|%s|%s|%s|%.0f', owner, channel, lease, tokens, now + lease)
  if mode then mine = mode .. '|' .. mine end
  local place = entry and place_of(owner, entry, now)
  if place then
    redis.call('LSET', waiters, place, mine)
  else
    place = redis.call('RPUSH', waiters, mine) - 1
  end
  if redis.call('PTTL', waiters) < tonumber(lease) then
    redis.call('PEXPIRE', waiters, lease)
  end
  return place, mine
end

