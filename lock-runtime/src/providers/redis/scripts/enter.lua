-- Lets the owner in, or has it wait, as `take_or_wait` does.
local function enter_or_wait(owner, lease, tokens, channel, mode, entry)
  local left, holder = no_lock(), ''
  if left then return { 'held', left, holder } end
  purge()
  if extend(owner, lease, mode) then
    -- It was let in, or the answer that said so was lost.
    return { new_number(tokens) }
  end
  local place, mine
  if channel ~= '' then place, mine = stand_in_line(owner, lease, tokens, channel, entry, mode) end
  local entered, passed = serve(owner)
  if not mine and redis.call('EXISTS', waiters) == 0 and not is_closed() and has_room(mode) then
    let_in(owner, lease, mode)
    entered = true
  end
  if entered then return { new_number(tokens) } end
  left, holder = held_by(mine and place == passed, mode)
  if not left then
    -- It is free for the first that waits, who is on the way.
    left, holder = -2, parts(redis.call('LINDEX', waiters, 0) or '') or ''
  end
  if not mine then return { 'held', left, holder } end
  return { left, place - passed, holder, last_number(), mine }
end

