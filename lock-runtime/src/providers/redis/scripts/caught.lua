-- Does it, and returns what it returns, or the error of a command that it has raised.
local function caught(work, ...)
  local done, answer = pcall(work, ...)
  if not done and type(answer) ~= 'table' then
    -- The server makes a text of the error that a command has raised. It begins with its code.
    local text = string.gsub(tostring(answer), '^%-', '')
    answer = { err = string.match(text, '^%u+ ') and text or 'ERR ' .. text }
  end
  return answer
end
