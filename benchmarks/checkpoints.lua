-- Whole runs, as an SDK reports them: two steps and the result, each with a run id of its own.
-- Arguments: what ids begin with (so that rounds do not repeat each other's).

local head, tail, number, prefix
local alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

function init(args)
  prefix = args[1] or "0"
  number = 0
  local step = '{"op":"StepRun","id":"%s","name":"%s","displayName":"%s",' ..
    '"data":{"item":"book","cents":1200},"timing":{"a":1732462323123456789,"b":20000},' ..
    '"userland":{"id":"%s"}}'
  local price = step:format("d1f03a11b1f5d1a0d5e8f5a6d8b1f03a11b1f5d1", "price", "price", "price")
  local reserve = step:format("e2f03a11b1f5d1a0d5e8f5a6d8b1f03a11b1f5d2", "reserve", "reserve", "reserve")
  local result = '{"op":"RunComplete","id":"4e3e3f5b5a1d8d4d7a0b1f3a5c6e7f8091a2b3c4",' ..
    '"data":{"status":200,"headers":{"content-type":"application/json"},' ..
    '"body":"{\\"item\\":\\"book\\",\\"cents\\":1200}","duration":150000}}'
  head = '{"run_id":"01HZ' .. prefix
  tail = '","event":{"data":{"domain":"http://127.0.0.1:8000","method":"GET","path":"/orders/book",' ..
    '"fn":"","ip":"127.0.0.1","content_type":"","query_params":"","body":null},' ..
    '"ts":1732462323123,"name":"inngest/http.request"},' ..
    '"steps":[' .. price .. "," .. reserve .. "," .. result .. '],"retries":0,"request_version":2}'
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
  wrk.headers["x-inngest-sdk"] = "stephttp-py:v0"
end

local function unique()
  number = number + 1
  local rest, text = number, ""
  for _ = 1, 22 - #prefix do
    local digit = rest % 32
    text = alphabet:sub(digit + 1, digit + 1) .. text
    rest = (rest - digit) / 32
  end
  return text
end

function request()
  return wrk.format(nil, "/v1/checkpoint", nil, head .. unique() .. tail)
end
