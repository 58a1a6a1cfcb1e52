-- What the modes of a lock share: who is let in, in arrival order over all modes.

-- Tells an owner that waits to look.
local function tell_to_look(owner, channel)
  local heard = redis.pcall('PUBLISH', channel, owner .. '|0|0')
  return type(heard) == 'number' and heard > 0
end

-- Tells the first in the queue to look, that many of them.
local function tell_the_first(count)
  local place, told = 0, 0
  while told < count do
    local entry = redis.pcall('LINDEX', waiters, place)
    if type(entry) ~= 'string' then return end
    local owner, channel = parts(entry)
    if owner and tell_to_look(owner, channel) then told = told + 1 end
    place = place + 1
  end
end

-- How many hear what is published to the waiter; -1 if the server does not tell. A message reaches
-- the subscribers of replicas too, but its count of receivers leaves them out. So this asks who
-- listens here, and then only what is true is published.
local function listeners(channel)
  local listening = redis.pcall('PUBSUB', 'NUMSUB', channel)
  return listening.err and -1 or listening[2]
end

-- Lets in from the head of the queue whoever may enter, and passes over the dead. Stops at the first
-- that has to wait. `caller` is alive, and is let in without a message; the entries of `gone` are
-- nobody's. Returns whether the caller was let in, and how many entries are gone.
local function serve(caller, gone)
  local entered, passed = false, 0
  while not is_closed() do
    -- What is no queue is none: a release must not fail half-way.
    local entry = redis.pcall('LINDEX', waiters, 0)
    if type(entry) ~= 'string' then
      hold_nobody_back()
      break
    end
    local owner, channel, lease, tokens, expires, mode = parts(entry)
    local here = 0
    if owner and owner == caller then
      here = 1
    elseif owner and owner ~= gone and tonumber(expires) > now then
      here = listeners(channel)
    end
    if here ~= 0 and not has_room(mode) then
      hold_back(owner, math.max(1, expires - now), mode)
      -- Only the head looks whether a foreign holder is gone, which may have come since it last did.
      if owner ~= caller and has_foreign() then tell_to_look(owner, channel) end
      break
    end
    -- A waiter that is told to look does no harm wherever it is: its turn is that of the entry here.
    if here == -1 and tell_to_look(owner, channel) then break end
    -- Before anything that a server whose memory is full refuses as a script's first write.
    redis.call('LPOP', waiters)
    passed = passed + 1
    if here > 0 then
      let_in(owner, lease, mode)
      if owner == caller then
        entered = true
      else
        local grant = string.format('%s|%.0f|%.0f', owner, new_number(tokens))
        -- If that is refused, the lock is the waiter's all the same: it looks now and then.
        redis.pcall('PUBLISH', channel, grant)
      end
    end
  end
  -- It goes before all of them.
  local owner, channel = last_waits_to_write()
  if owner then tell_to_look(owner, channel) end
  return entered, passed
end

