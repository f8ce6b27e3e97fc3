-- As `model.rs` has it, within Redis and at its time. Numbers are whole and exact up to 2^53.
--
-- KEYS: one for each limit.
-- ARGV: "take" or "settle"; the time in microseconds, or "" for Redis' own; the cost; for "settle", when
-- and what was taken (otherwise 0, 0); then for each limit "rate", size, weight, drain, or
-- "quota", size, period in microseconds (0 for a month), 0.
-- Answer: 1 or 0, the time, and for each limit when and what.

local CEILING = 9007199254740991
local SMALL_STEP = 1000000
local DAY = 86400000000

local act, now, cost = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local taken_at, taken = tonumber(ARGV[4]), tonumber(ARGV[5])
if now == nil then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function month(day)
  day = day + 719468
  local era = math.floor(day / 146097)
  local of_era = day - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  return (era * 400 + year) * 12 + math.floor((5 * of_year + 2) / 153)
end

local function window(period, time)
  if period == 0 then return month(math.floor(time / DAY)) end
  return math.floor(time / period)
end

local limits = {}
local allowed = 1
for i, key in ipairs(KEYS) do
  local from = 5 + (i - 1) * 4
  local it = {
    rate = ARGV[from + 1] == 'rate',
    size = tonumber(ARGV[from + 2]),
    weight = tonumber(ARGV[from + 3]),
    drain = tonumber(ARGV[from + 4]),
    period = tonumber(ARGV[from + 3]),
    at = now,
    used = 0,
  }
  local known = redis.call('GET', key)
  local at, used
  if known then
    at, used = string.match(known, '^(-?%d+) (%d+)$')
    at, used = tonumber(at), tonumber(used)
  end
  if it.rate then
    if used and now >= at then
      it.used = math.max(0, used - (now - at) * it.drain)
    elseif used then
      if at - now <= SMALL_STEP then it.at = at end
      it.used = used
    end
  else
    it.weight = 1
    it.at = window(it.period, now)
    if used and (at == it.at or at - 1 == it.at) then
      it.at, it.used = at, used
    end
  end
  if it.used + cost * it.weight > it.size then allowed = 0 end
  limits[i] = it
end

if act == 'take' then
  for _, it in ipairs(limits) do
    it.write = allowed == 1
    if it.write then it.used = math.min(CEILING, it.used + cost * it.weight) end
  end
else
  allowed = 1
  for _, it in ipairs(limits) do
    local over = not it.rate and window(it.period, taken_at) ~= it.at
    it.write = not over
    if over then
      -- Its window has passed.
    elseif cost >= taken then
      it.used = math.min(CEILING, it.used + (cost - taken) * it.weight)
    else
      local drained = 0
      if it.rate then drained = math.max(0, it.at - taken_at) * it.drain end
      local back = math.max(0, (taken - cost) * it.weight - drained)
      it.used = math.max(0, it.used - back)
    end
  end
end

local answer = { allowed, now }
for i, it in ipairs(limits) do
  if it.write then
    -- Until everything is there again, and a little longer. A month is at most 31 days.
    local lasts = it.period == 0 and 31 * DAY or it.period
    if it.rate then lasts = it.used / it.drain end
    local value = string.format('%.0f %.0f', it.at, it.used)
    redis.call('SET', KEYS[i], value, 'PX', string.format('%.0f', math.ceil(lasts / 1000) + 2000))
  end
  answer[#answer + 1] = it.at
  answer[#answer + 1] = it.used
end
return answer
