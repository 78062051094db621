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

-- What was read and what is to be written is gathered here, since a command for each of
-- many events costs more than all else: known and pending have the values of keys in m,
-- false for none, and touched the keys of pending, in their order.
local known, pending, touched = {}, {}, {}

local function fetch(keys)
  for i = 1, #keys, 500 do
    local last = math.min(i + 499, #keys)
    local values = redis.call('HMGET', m, unpack(keys, i, last))
    for n = i, last do known[keys[n]] = values[n - i + 1] end
  end
end

-- fetched reads what ARGV has from a place on, one key for so many arguments.
local function fetched(from, step)
  local keys = {}
  for i = from, #ARGV, step do keys[#keys + 1] = ARGV[i] end
  fetch(keys)
end

local function get(k)
  local v = pending[k]
  if v == nil then v = known[k] end
  if not v then return nil end
  local token, done, till, gap = string.match(v, '^(%d+):(%d):(%d+):(%d+)$')
  local x = {token = token, done = done == '1', till = tonumber(till), gap = tonumber(gap)}
  if ids and x.till <= now then return nil end
  return x
end

local function write(k, v)
  if pending[k] == nil then touched[#touched + 1] = k end
  pending[k] = v
end

local function put(k, token, done, till, gap)
  write(k, token .. ':' .. (done and '1' or '0') .. ':' .. str(till) .. ':' .. str(gap))
end

local function forget(k) write(k, false) end

local function flush()
  for i = 1, #touched, 500 do
    local values, scores, gone = {}, {}, {}
    for n = i, math.min(i + 499, #touched) do
      local k = touched[n]
      local v = pending[k]
      known[k] = v
      if v then
        values[#values + 1], values[#values + 2] = k, v
        scores[#scores + 1], scores[#scores + 2] = ids and string.match(v, '^%d+:%d:(%d+)') or k, k
      else
        gone[#gone + 1] = k
      end
    end
    if #values > 0 then
      redis.call('HSET', m, unpack(values))
      redis.call('ZADD', z, unpack(scores))
    end
    if #gone > 0 then
      redis.call('HDEL', m, unpack(gone))
      redis.call('ZREM', z, unpack(gone))
    end
  end
  pending, touched = {}, {}
end

local function drop(from, through)
  flush()
  while true do
    local some = redis.call('ZRANGEBYSCORE', z, str(from), str(through), 'LIMIT', 0, 500)
    if #some == 0 then return end
    for _, k in ipairs(some) do forget(k) end
    flush()
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

-- follow moves settled on over the marks that follow it, and writes what there is.
local function follow()
  flush()
  if ids then return end
  local most = 1
  repeat
    local some = redis.call('ZRANGE', z, 0, most - 1)
    local over = #some < most
    fetch(some)
    for _, k in ipairs(some) do
      local x = get(k)
      if x and (not x.done or tonumber(k) - x.gap > settled + 1) then
        over = true
        break
      end
      if x then settled = tonumber(k) end
      forget(k)
    end
    flush()
    most = 500
  until over
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
fetched(3, 2)
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
fetched(3, 4)
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
fetched(3, 3)
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
fetched(2, 2)
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
