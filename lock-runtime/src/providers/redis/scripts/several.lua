-- Takes one lock after another, up to the first that is held. Nobody queues.
-- KEYS: the fencing counter; each lock and its waiters. ARGV: of each its owner, lease in ms and
-- tokens wanted.
-- Answers for each lock as the script for one does, up to the first that was not taken.
fence = KEYS[1]
local function take(owner, lease, tokens)
  local took = redis.pcall('SET', lock, owner, 'NX', 'PX', lease)
  return take_or_wait(took, owner, lease, tokens, '')
end

local answers = {}
for at = 1, #ARGV / 3 do
  lock, waiters = KEYS[2 * at], KEYS[2 * at + 1]
  -- One that fails must not take back the answers of those before.
  local answer = caught(take, unpack(ARGV, 3 * at - 2, 3 * at))
  answers[at] = answer
  -- What was taken is answered with its first token, and how many there are.
  if type(answer[1]) ~= 'number' then break end
end
return answers
