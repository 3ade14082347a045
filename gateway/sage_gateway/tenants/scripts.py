"""Lua scripts of the Redis store: :mod:`sage_gateway.tenants.limits` in atomic steps.

``tests/conformance/test_tenants.py`` checks that both give the same results. Fields of an account:
``r`` and ``t`` (debts in requests and tokens), ``at``, ``day`` and ``ds`` (spent that day),
``month`` and ``ms``, and ``held:LIFE``, the holds of one gateway life.
"""

_SPEND = """
local function spend(key, day, month, now_day, now_month, tokens)
  local old = redis.call('HMGET', key, 'day', 'month')
  if tonumber(old[1] or 0) < now_day then redis.call('HSET', key, 'day', now_day, 'ds', 0) end
  if tonumber(old[2] or 0) < now_month then redis.call('HSET', key, 'month', now_month, 'ms', 0) end
  local at = redis.call('HMGET', key, 'day', 'month')
  local at_day, at_month = tonumber(at[1]), tonumber(at[2])
  local more = tokens > 0
  if day == at_day or (more and day < at_day) then redis.call('HINCRBY', key, 'ds', tokens) end
  if month == at_month or (more and month < at_month) then
    redis.call('HINCRBY', key, 'ms', tokens)
  end
end
local function charge(keys, now_day, now_month, c, sign)
  local used = c[1] .. c[3]
  for i, letter in ipairs({'r', 'p', 'c'}) do
    redis.call('HINCRBY', used, letter .. c[5], sign * tonumber(c[5 + i]))
  end
  redis.call('EXPIRE', used, c[2])
  local tokens = sign * (tonumber(c[7]) + tonumber(c[8]))
  for i = 1, 2 do
    spend(keys[i], tonumber(c[3]), tonumber(c[4]), now_day, now_month, tokens)
  end
end
"""
# KEYS key, tenant, lease, and the call's charge if it has an id; ARGV prefix of leases, life, now,
# day, month, likely, most, and for each account its four limits. Returns 0 if admitted; 1, account,
# limit, allowed, wait in ms (-1: until the end of its day or month); 2 if the lease has expired.
ADMIT = (
    _SPEND
    + """
if redis.call('EXISTS', KEYS[3]) == 0 then return {2} end
local leases, life, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local day, month = tonumber(ARGV[4]), tonumber(ARGV[5])
local before = KEYS[4] and redis.call('GET', KEYS[4])
if before then
  local old = cjson.decode(before)
  if redis.call('EXISTS', leases .. old.life) == 0 then
    charge(KEYS, day, month, old.c, -1)
    redis.call('DEL', KEYS[4])
  end
end
local likely, most = tonumber(ARGV[6]), tonumber(ARGV[7])
local found = {}
for i = 1, 2 do
  local flat, f, held = redis.call('HGETALL', KEYS[i]), {}, 0
  for j = 1, #flat, 2 do
    local name, value = flat[j], flat[j + 1]
    f[name] = value
    if string.sub(name, 1, 5) == 'held:' then
      if redis.call('EXISTS', leases .. string.sub(name, 6)) == 1 then
        held = held + tonumber(value)
      else
        redis.call('HDEL', KEYS[i], name)
      end
    end
  end
  local function n(name) return tonumber(f[name] or '0') end
  local function limit(j) return tonumber(ARGV[3 + 4 * i + j]) end
  local passed = math.max(0, now - n('at'))
  local function reduced(debt, allowed)
    if allowed < 0 then return 0 end
    return math.max(0, debt - passed * allowed / 60)
  end
  local a = {r = reduced(n('r'), limit(1)), t = reduced(n('t'), limit(2)),
             day = n('day'), ds = n('ds'), month = n('month'), ms = n('ms')}
  if a.day < day then a.day, a.ds = day, 0 end
  if a.month < month then a.month, a.ms = month, 0 end
  local ahead = n('at') - now
  a.at = (ahead > 0 and ahead < 60) and f.at or ARGV[3]
  local refusal = nil
  for j, pair in ipairs({{a.r, 1}, {a.t, likely}}) do
    local allowed = limit(j)
    local over = pair[1] + math.min(pair[2], allowed) - allowed
    local wait_ms = math.ceil(over * 60000 / allowed)
    if allowed >= 0 and over > 0 and (not refusal or wait_ms > refusal[5]) then
      refusal = {1, i, j, allowed, wait_ms}
    end
  end
  if refusal then return refusal end
  for j, spent in ipairs({a.ms, a.ds}) do
    local allowed = limit(j + 2)
    if allowed >= 0 and spent + held + most > allowed then
      return {1, i, j + 2, allowed, spent + most <= allowed and 1000 or -1}
    end
  end
  found[i] = a
end
for i = 1, 2 do
  local a = found[i]
  redis.call('HSET', KEYS[i], 'r', a.r + 1, 't', a.t + likely, 'at', a.at,
    'day', a.day, 'ds', a.ds, 'month', a.month, 'ms', a.ms)
  redis.call('HINCRBY', KEYS[i], 'held:' .. life, most)
end
return {0}
"""
)
# KEYS key, tenant, lease, and the call's charge if it has an id; ARGV prefix of leases, life,
# likely less used, most, seconds to keep that charge, day, month, and the charge if any. Returns
# whether it succeeded.
SETTLE = (
    _SPEND
    + """
local c = {unpack(ARGV, 8)}
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
local day, month = tonumber(ARGV[6]), tonumber(ARGV[7])
for i = 1, 2 do
  local field = 'held:' .. ARGV[2]
  if redis.call('HINCRBY', KEYS[i], field, -tonumber(ARGV[4])) <= 0 then
    redis.call('HDEL', KEYS[i], field)
  end
  local debt = tonumber(redis.call('HGET', KEYS[i], 't') or '0') - tonumber(ARGV[3])
  redis.call('HSET', KEYS[i], 't', math.max(0, debt))
end
if #c == 0 then return 1 end
if KEYS[4] then
  redis.call('SET', KEYS[4], cjson.encode({life = ARGV[2], c = c}), 'EX', ARGV[5])
end
charge(KEYS, day, month, c, 1)
return 1
"""
)
# KEYS batch, key and tenant of each charge; ARGV day, month, seconds to remember the batch, the
# charges.
ADD = (
    _SPEND
    + """
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[3]) then return end
for i = 0, (#KEYS - 1) / 2 - 1 do
  local two = {KEYS[2 * i + 2], KEYS[2 * i + 3]}
  local c = {unpack(ARGV, 4 + 8 * i, 11 + 8 * i)}
  charge(two, tonumber(ARGV[1]), tonumber(ARGV[2]), c, 1)
end
"""
)
