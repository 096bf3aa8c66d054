-- The limits of one admission in one step; `limits.py` says what the three of them mean, `redis_limits.py` sends this.
--
-- KEYS, three for each subject: a hash of counts, a sorted set of running calls, one of resting streams; both by the time (us) at
--   which a place runs out that nobody renews.
-- ARGV: what to do, now (us; 0 = this server's clock), cost, the name of the place; then for each subject hourly, burst, concurrency.
--   admit   count and take a place among the calls     stream  count and take a place among the streams
--   look    change nothing                              renew   the places named from ARGV[5] on run out later
--   merge   add what a process counted alone: ARGV[3] calls of the burst, from ARGV[8] on minute and count by turns
-- Answer: now (us), then for each subject {left of the hour, reset (s), left of the burst, time until it is full (us), places taken,
--   what stands against it or '', how long (us), 1 = 80 % reached and 2 = all of it}.
-- The hash: m minute of the newest cell, n sum of the cells, t when the burst is full (us), r reset, e and f the minutes of the last
-- alarms, 0 to 60 the cells.

local CELLS, MINUTE_US, BURST_US, PLACE_US, STREAMS = 61, 60000000, 60000000, 60000000, 10
local HASH_MS, PLACES_MS = 3720000, 120000
local doing, now, cost, place = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Cells by age, the oldest first; those that this turn has emptied are empty.
local function cells(of)
  local names = {}
  for age = CELLS - 1, 0, -1 do names[#names + 1] = (of.minute - age) % CELLS end
  local counts = redis.call('HMGET', of.hash, unpack(names))
  for index, name in ipairs(names) do counts[index] = of.emptied[name] and 0 or tonumber(counts[index]) or 0 end
  return counts
end

local function free_at(of, wanted)
  for index, count in ipairs(cells(of)) do
    wanted = wanted - count
    if wanted <= 0 then return (of.minute - CELLS + index + CELLS) * 60 end
  end
  return (of.minute + CELLS) * 60
end

local function grows_at(of)
  return free_at(of, math.max(1, of.total + 1 - of.hourly))
end

local function load(number)
  local key, arg = (number - 1) * 3, 4 + (number - 1) * 3
  local of = {hash = KEYS[key + 1], calls = KEYS[key + 2], streams = KEYS[key + 3], emptied = {}, gone = {}}
  of.hourly, of.burst, of.concurrency = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3])
  local held = redis.call('HMGET', of.hash, 'm', 'n', 't', 'r', 'e', 'f')
  local before = tonumber(held[1])
  of.minute, of.total, of.reset = math.floor(now / MINUTE_US), tonumber(held[2]) or 0, tonumber(held[4]) or 0
  if before and before > of.minute then of.minute = before end -- a clock that went back
  if before and before < of.minute then
    for step = 1, math.min(of.minute - before, CELLS) do
      of.gone[step] = (before + step) % CELLS
      of.emptied[of.gone[step]] = true
    end
    for _, count in ipairs(redis.call('HMGET', of.hash, unpack(of.gone))) do of.total = of.total - (tonumber(count) or 0) end
    of.reset = 0
  end
  of.interval = math.ceil(BURST_US / of.burst)
  of.tolerance = (of.burst - 1) * of.interval
  of.tat = math.max(tonumber(held[3]) or 0, now)
  of.told = {tonumber(held[5]) or 0, tonumber(held[6]) or 0}
  of.running = redis.call('ZCOUNT', of.calls, '(' .. whole(now), '+inf')
  return of
end

-- Of the limits that stand against it the one that does so longest: only its wait is an honest one.
local function judge(of)
  local last = of.tat + (cost - 1) * of.interval
  local policy, wait = '', 0
  if last - now > of.tolerance then policy, wait = 'burst', last - of.tolerance - now + 1 end
  if of.total + cost > of.hourly then
    local hour = free_at(of, math.max(1, of.total + cost - of.hourly)) * 1000000 - now
    if hour > wait then policy, wait = 'hourly', hour end
  end
  if wait <= 1000000 and of.running >= of.concurrency then policy, wait = 'concurrency', 1000000 end
  if wait <= 1000000 and doing == 'stream' then
    of.resting = redis.call('ZCOUNT', of.streams, '(' .. whole(now), '+inf')
    if of.resting >= STREAMS * of.concurrency then policy, wait = 'streams', 1000000 end
  end
  of.policy, of.wait = policy, wait
  return policy == ''
end

local function count(of, calls)
  if #of.gone > 0 then redis.call('HDEL', of.hash, unpack(of.gone)) end
  of.gone, of.emptied = {}, {}
  of.total = of.total + calls
  redis.call('HINCRBY', of.hash, of.minute % CELLS, calls)
end

local function keep(of)
  if of.reset == 0 and of.total > 0 then of.reset = grows_at(of) end
  redis.call('HSET', of.hash, 'm', of.minute, 'n', of.total, 't', whole(of.tat), 'r', of.reset, 'e', of.told[1], 'f', of.told[2])
  redis.call('PEXPIRE', of.hash, HASH_MS)
end

-- Which alarms go off: each at most once an hour.
local function alarms(of)
  local found = 0
  for number, percent in ipairs({80, 100}) do
    if of.total * 100 >= of.hourly * percent and of.minute - of.told[number] >= 60 then
      of.told[number] = of.minute
      found = found + number
    end
  end
  return found
end

local function hold(places)
  redis.call('ZREMRANGEBYSCORE', places, '-inf', whole(now))
  redis.call('ZADD', places, whole(now + PLACE_US), place)
  redis.call('PEXPIRE', places, PLACES_MS)
end

local function take(of)
  if cost > 0 then
    of.tat = of.tat + cost * of.interval
    count(of, cost)
    of.alarms = alarms(of)
    keep(of)
  end
  hold(doing == 'stream' and of.streams or of.calls)
  if doing == 'admit' then of.running = of.running + 1 end
end

if doing == 'renew' then
  for index = 5, #ARGV do redis.call('ZADD', KEYS[1], whole(now + PLACE_US), ARGV[index]) end
  redis.call('PEXPIRE', KEYS[1], PLACES_MS)
  return {whole(now)}
end

if doing == 'merge' then
  local of = load(1)
  of.tat = math.max(of.tat, now + math.ceil(cost * of.interval))
  count(of, 0)
  for index = 8, #ARGV, 2 do
    local minute, calls = math.min(tonumber(ARGV[index]), of.minute), tonumber(ARGV[index + 1])
    if minute > of.minute - CELLS then
      of.total = of.total + calls
      redis.call('HINCRBY', of.hash, minute % CELLS, calls)
    end
  end
  of.reset = 0
  keep(of)
  return {whole(now)}
end

local subjects, free = {}, true
for number = 1, #KEYS / 3 do
  subjects[number] = load(number)
  if doing ~= 'look' and not judge(subjects[number]) then free = false end
end
local answer = {whole(now)}
for _, of in ipairs(subjects) do
  if doing ~= 'look' and free then take(of) end
  local reset = (of.minute + CELLS) * 60
  if of.total > 0 then reset = of.reset > 0 and of.reset or grows_at(of) end
  local burst = math.floor(math.max(0, of.tolerance + of.interval - (of.tat - now)) / of.interval)
  answer[#answer + 1] = {
    math.max(0, of.hourly - of.total), reset, burst, of.tat - now, of.running, of.policy or '', math.ceil(of.wait or 0), of.alarms or 0,
  }
end
return answer
