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

