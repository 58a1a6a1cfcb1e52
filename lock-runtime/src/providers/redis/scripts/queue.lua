-- What the scripts share. KEYS: the lock, its waiters, the fencing counter.

local lock, waiters, fence = KEYS[1], KEYS[2], KEYS[3]

-- New fencing tokens: the first, and how many. They are the clock's: what a server never heard of,
-- because another one granted it, was before. Several only as far as the clock has moved on since
-- the last: single grants cost more than a microsecond each and cannot outrun it, blocks could.
local function take_tokens(wanted, now)
  now = now or clock()
  local last = read_counter(fence) or now
  local count = math.max(1, math.min(wanted, now - last))
  local first = math.max(last + 1, now - count + 1)
  redis.call('SET', fence, string.format('%.0f', first + count - 1), 'PX', 691200000)
  return first, count
end

-- An entry is owner|channel|lease_ms|tokens_wanted|expires_at_ms; only the channel may hold a bar.
local function parts(entry)
  return string.match(entry, '^([^|]+)|(.*)|(%d+)|(%d+)|(%d+)$')
end

-- Gives the lock to the first waiter that is alive, and returns its owner; nil if there is none.
-- Stops where the caller's own entry comes up, and returns the caller.
--
-- A published message reaches the subscribers of replicas too, but its count of receivers leaves
-- them out. So this asks first who listens here, and then publishes only what is true.
local function hand_over(caller)
  local now
  while true do
    -- What is no queue is none: a release must not fail half-way.
    local entry = redis.pcall('LINDEX', waiters, 0)
    if type(entry) ~= 'string' then return nil end
    now = now or clock()
    local owner, channel, lease, tokens, expires = parts(entry)
    local here = 0
    if owner and owner ~= caller and tonumber(expires) * 1000 > now then
      local listening = redis.pcall('PUBSUB', 'NUMSUB', channel)
      here = listening[2]
      if listening.err then
        -- The server does not tell. A waiter that is told to look does no harm wherever it is: the
        -- lock is free for the one that has its entry here.
        local heard = redis.pcall('PUBLISH', channel, owner .. '|0|0')
        if type(heard) == 'number' and heard > 0 then
          redis.call('DEL', lock)
          return owner
        end
        here = 0
      end
    end
    -- Before anything that a server whose memory is full refuses as a script's first write.
    redis.call('LPOP', waiters)
    if owner == caller then return owner end
    if here > 0 then
      local grant = string.format('%s|%.0f|%.0f', owner, take_tokens(tonumber(tokens), now))
      redis.call('SET', lock, owner, 'PX', lease)
      -- If that is refused, the lock is the waiter's all the same: it looks now and then.
      redis.pcall('PUBLISH', channel, grant)
      return owner
    end
  end
end

-- The lock is the owner's: gives it to the next, or lets it go.
local function give_up(owner)
  local next_owner
  repeat next_owner = hand_over(owner) until next_owner ~= owner
  if not next_owner then redis.call('DEL', lock) end
end

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

-- Puts the owner's entry into the queue, or a fresh one in the place of that which it had. Answers
-- with the lock's remaining time, the place in the queue, the holder, the last token that a grant
-- before this moment has, and the entry.
local function wait_in_line(owner, lease, tokens, channel, entry, left, holder)
  local now = math.floor(clock() / 1000)
  local mine = string.format('%s|%s|%s|%s|%.0f', owner, channel, lease, tokens, now + lease)
  local place = entry and place_of(owner, entry, now)
  if place then
    redis.call('LSET', waiters, place, mine)
  else
    place = redis.call('RPUSH', waiters, mine) - 1
  end
  if redis.call('PTTL', waiters) < tonumber(lease) then
    redis.call('PEXPIRE', waiters, lease)
  end
  local last = read_counter(fence) or clock()
  return { left, place, holder, last, mine }
end

-- After `SET NX`: what the owner gets. Where the lock was free although somebody waits, because
-- its holder crashed or is foreign, the head of the queue comes first. A server whose memory is
-- full refuses the `SET`, but not what was granted already. Nobody waits for a value that never
-- expires: no lock is like that.
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
      return { 'held', -3, '' }
    end
    -- Somebody may keep a book there.
    holder = string.sub(holder, 1, 128)
  end
  local left = redis.call('PTTL', lock)
  if channel == '' or left == -1 then return { 'held', left, holder } end
  return wait_in_line(owner, lease, tokens, channel, entry, left, holder)
end
