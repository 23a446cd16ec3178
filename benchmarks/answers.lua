-- Looks at every answer, and says at the end how many are not what the handler gives.
-- Arguments: milliseconds to wait before each request.

local threads = {}
wrong = 0

function init(args)
  pause = tonumber(args[1] or "0")
end

function delay()
  return pause
end

function setup(thread)
  table.insert(threads, thread)
end

function response(status, headers, body)
  if status ~= 200 or body ~= '{"item":"book","cents":4}' then
    wrong = wrong + 1
  end
end

function done()
  local all = 0
  for _, thread in ipairs(threads) do
    all = all + thread:get("wrong")
  end
  print(all .. " wrong answers")
end
