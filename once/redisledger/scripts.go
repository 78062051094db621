package redisledger

import "github.com/redis/go-redis/v9"

// What is kept of a book of numbers, whose keys share one slot of a cluster:
//
//	{book}:b   hash    settled, token
//	{book}:m   hash    number -> "token:done:until:gap"
//	{book}:z   zset    number, by number
//
// and of a book of ids the same, with ids for numbers, and the zset by until. Times are
// milliseconds of the server's clock, and all numbers below 2^53, which is where Lua's
// and the zset's end. Scripts are replicated by their effects, as since Redis 5.
//
// A token is the server's time in microseconds, or one more than the last: so tokens grow
// even over a server that has lost its last seconds, or everything.

// shared is what all scripts begin with. KEYS are b, m and z; ARGV[1] is "n" or "i".
const shared = `
local b, m, z, ids = KEYS[1], KEYS[2], KEYS[3], ARGV[1] == 'i'
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local settled = tonumber(redis.call('HGET', b, 'settled') or '-1')
local was = settled

local function str(n) return string.format('%.0f', n) end

local function get(k)
  local v = redis.call('HGET', m, k)
  if not v then return nil end
  local token, done, till, gap = string.match(v, '^(%d+):(%d):(%d+):(%d+)$')
  local x = {token = token, done = done == '1', till = tonumber(till), gap = tonumber(gap)}
  if ids and x.till <= now then return nil end
  return x
end

local function put(k, token, done, till, gap)
  redis.call('HSET', m, k, token .. ':' .. (done and '1' or '0') .. ':' .. str(till) .. ':' .. str(gap))
  redis.call('ZADD', z, ids and str(till) or k, k)
end

local function forget(k)
  redis.call('HDEL', m, k)
  redis.call('ZREM', z, k)
end

local function drop(from, through)
  while true do
    local some = redis.call('ZRANGEBYSCORE', z, str(from), str(through), 'LIMIT', 0, 500)
    if #some == 0 then return end
    for _, k in ipairs(some) do redis.call('HDEL', m, k) end
    redis.call('ZREMRANGEBYSCORE', z, str(from), some[#some])
  end
end

-- whose says whether a claim is lost, and whether nothing is left to be done for it.
local function whose(k, token, till)
  if not ids and tonumber(k) <= settled then return till < now, true end
  local x = get(k)
  return x and x.token ~= token, x and x.done
end

local function mark(k, token, till, gap)
  if ids then return put(k, token, true, till, 0) end
  local n = tonumber(k)
  if n - gap > settled + 1 then
    if gap > 0 then drop(n - gap, n - 1) end
    return put(k, token, true, till, gap)
  end
  settled = n
  if gap > 0 then drop(0, n) else forget(k) end
end

local function follow()
  if ids then return end
  while true do
    local k = redis.call('ZRANGE', z, 0, 0)[1]
    if not k then break end
    local x = get(k)
    if x and (not x.done or tonumber(k) - x.gap > settled + 1) then break end
    if x then settled = tonumber(k) end
    forget(k)
  end
  if settled ~= was then redis.call('HSET', b, 'settled', str(settled)) end
end
`

// claim answers "d", "b" and until, or "c", until and token, for each event.
// ARGV: kind, lease, then key and gap of each event.
var claim = redis.NewScript(shared + `
local till = now + tonumber(ARGV[2])
local token = math.max(tonumber(redis.call('HGET', b, 'token') or '0') + 1, tonumber(time[1]) * 1000000 + tonumber(time[2]))
redis.call('HSET', b, 'token', str(token))
if ids then
  for _, k in ipairs(redis.call('ZRANGEBYSCORE', z, '-inf', str(now), 'LIMIT', 0, 1000)) do forget(k) end
end
local answer = {}
for i = 3, #ARGV, 2 do
  local k, gap = ARGV[i], tonumber(ARGV[i + 1])
  local x = nil
  local old = not ids and tonumber(k) <= settled
  if not old then x = get(k) end
  if old or (x and x.done) then
    if x and not ids and gap > x.gap then mark(k, x.token, x.till, gap) end
    answer[#answer + 1] = 'd'
  elseif x and x.till > now then
    answer[#answer + 1] = 'b' .. str(x.till)
  else
    put(k, str(token), false, till, 0)
    answer[#answer + 1] = 'c' .. str(till) .. ':' .. str(token)
  end
end
follow()
return answer
`)

// marks marks claims, and answers the places of those that are lost.
// ARGV: kind, how long ids are kept, then key, gap, token and until of each claim.
var marks = redis.NewScript(shared + `
local keep = now + tonumber(ARGV[2])
local lost = {}
for i = 3, #ARGV, 4 do
  local k, gap, token, till = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3])
  local gone, done = whose(k, token, till)
  if gone then
    lost[#lost + 1] = (i - 3) / 4
  elseif not done then
    mark(k, token, keep, gap)
  end
end
follow()
return lost
`)

// extend has claims last for a lease, and answers until when, and then the places of
// those that are lost. ARGV: kind, lease, then key, token and until of each claim.
var extend = redis.NewScript(shared + `
local longer = now + tonumber(ARGV[2])
local answer = {str(longer)}
for i = 3, #ARGV, 3 do
  local k, token, till = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local gone, done = whose(k, token, till)
  if gone then
    answer[#answer + 1] = (i - 3) / 3
  elseif not done then
    put(k, token, false, longer, 0)
  end
end
follow()
return answer
`)

// release gives claims up. ARGV: kind, then key and token of each claim.
var release = redis.NewScript(shared + `
for i = 2, #ARGV, 2 do
  local x = get(ARGV[i])
  if x and not x.done and x.token == ARGV[i + 1] then forget(ARGV[i]) end
end
follow()
return 0
`)

// settle moves the mark to a number. ARGV: kind, the number.
var settle = redis.NewScript(shared + `
local through = tonumber(ARGV[2])
if through > settled then
  settled = through
  drop(0, through)
end
follow()
return 0
`)

// status answers what is settled, and how many marks and claims there are. ARGV: kind.
var status = redis.NewScript(shared + `
local done, claims = 0, 0
for _, v in ipairs(redis.call('HVALS', m)) do
  if string.match(v, '^%d+:1:') then done = done + 1 else claims = claims + 1 end
end
return {str(settled), done, claims}
`)
