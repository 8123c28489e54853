"""What Redis does for a batch of takes, in one script: as `gateway.rates` decides, on Redis' own clock.

ARGV[1] is MessagePack: [process, batch, operations]. An operation is one of

    ["take", lines]   all of the lines or none; answered
    ["give", lines]   back
    ["beat", counts]  this process lives, and holds so many slots of each name; answered with every process that lives
    ["bye", names]    this process holds no slots of these names any more, and ends

and the answer is MessagePack too: of a take `gateway.sharing.cluster.Taken`. Moments are seconds since `EPOCH`, recent
enough that a float holds a hundredth of a microsecond. Of each bucket Redis keeps the moment at which it is full, and the
capacity and rate by which that was counted, so that other numbers apply to the same state; of a window the starts, and
those given back; of slots what each process holds, which counts as long as that process lives. Nothing stays for ever.
"""

from __future__ import annotations

# A process that was not heard of for so long has crashed: its slots are free. It says so every second.
DEAD_AFTER_S = 4.0
# The hash tag keeps every key in one slot of a Redis Cluster; the number is the schema's version.
PREFIX = "{llmc}:1:"
EPOCH = 1_790_000_000

TAKE = """
local PREFIX, EPOCH, DEAD_AFTER_S, EPSILON_S = '__PREFIX__', __EPOCH__, __DEAD__, 1e-7
local LIVE, SLOTS_TTL_MS = PREFIX .. 'live', 60000
local time = redis.call('TIME')
local now = tonumber(time[1]) - EPOCH + tonumber(time[2]) / 1e6
local input = cmsgpack.unpack(ARGV[1])
local process, batch, operations = input[1], input[2], input[3]
local max, min = math.max, math.min
local NAME, KIND, CAPACITY, RATE, AMOUNT, PATIENCE, PLACE = 1, 2, 3, 4, 5, 6, 7
local buckets, slots, live, windows = {}, {}, nil, 0

local function precise(number) return string.format('%.17g', number) end
local function ttl_ms(seconds) return math.ceil(max(seconds, 0) * 1000) + 1000 end
local function waiting(wait_s) return wait_s > EPSILON_S and wait_s or 0 end

local function bucket_of(line)
  local name, capacity, rate = line[NAME], line[CAPACITY], line[RATE]
  local bucket = buckets[name]
  if not bucket then
    local kept = redis.call('GET', PREFIX .. name)
    bucket = {full_at = now, capacity = capacity, rate = rate}
    if kept then bucket.full_at, bucket.capacity, bucket.rate = struct.unpack('<ddd', kept) end
    buckets[name] = bucket
  end
  if bucket.capacity ~= capacity or bucket.rate ~= rate then
    local booked_until = bucket.full_at - bucket.capacity / bucket.rate
    bucket.full_at = now + min(capacity, max(0, bucket.full_at - now) * bucket.rate) / rate
    if line[PATIENCE] and booked_until > now then bucket.full_at = booked_until + capacity / rate end
    bucket.capacity, bucket.rate = capacity, rate
  end
  return bucket
end

local function amount_of(line)
  return line[PATIENCE] and line[AMOUNT] or min(line[AMOUNT], line[CAPACITY])
end

local function look_at_bucket(line)
  local bucket, capacity, rate, amount = bucket_of(line), line[CAPACITY], line[RATE], amount_of(line)
  local after = max(bucket.full_at, now) + amount / rate
  local wait_s = waiting(after - now - capacity / rate)
  return wait_s <= (line[PATIENCE] or 0), wait_s, after
end

local function live_ones()
  if not live then
    live = {[process] = true}
    for _, other in ipairs(redis.call('ZRANGEBYSCORE', LIVE, precise(now - DEAD_AFTER_S), '+inf')) do live[other] = true end
  end
  return live
end

local function slots_of(name)
  local found = slots[name]
  if not found then
    found = {all = 0, own = 0}
    local held = redis.call('HGETALL', PREFIX .. name)
    for index = 1, #held, 2 do
      local count = tonumber(held[index + 1])
      if held[index] == process then found.own = count end
      if live_ones()[held[index]] then found.all = found.all + count
      else redis.call('HDEL', PREFIX .. name, held[index]) end
    end
    slots[name] = found
  end
  return found
end

local function look_at_slots(line)
  return slots_of(line[NAME]).all < line[CAPACITY], 0, 0
end

local function remove_place(key, place)
  local member = redis.call('ZRANGEBYSCORE', key, place, place, 'LIMIT', 0, 1)[1]
  if member then redis.call('ZREM', key, member) end
end

local function score(key, rank)
  return tonumber(redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')[2])
end

local function reused_place(key)
  while true do
    local freed = redis.call('ZRANGE', key .. ':freed', 0, 0, 'WITHSCORES')
    if not freed[1] then return nil end
    if tonumber(freed[2]) >= now - EPSILON_S then return tonumber(freed[2]), freed[1] end
    redis.call('ZREM', key .. ':freed', freed[1])
    remove_place(key, freed[2])
  end
end

local function look_at_window(line)
  local key, window_s = PREFIX .. line[NAME], line[CAPACITY] / line[RATE]
  local place, freed = reused_place(key)
  if not place then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', precise(now - window_s))
    place = max(now, score(key, -1) or now)
    local first = score(key, -line[CAPACITY])
    if first then place = max(place, first + window_s) end
  end
  local wait_s = waiting(place - now)
  return wait_s <= (line[PATIENCE] or 0), wait_s, place, freed
end

local look_at = {bucket = look_at_bucket, slots = look_at_slots, window = look_at_window}

local function started(line)
  local key, window_s = PREFIX .. line[NAME], line[CAPACITY] / line[RATE]
  local past = precise(now - window_s)
  return redis.call('ZCOUNT', key, '(' .. past, precise(now)) - redis.call('ZCOUNT', key .. ':freed', '(' .. past, precise(now))
end

local function see(line)
  if line[KIND] == 'bucket' then return max(0, bucket_of(line).full_at - now) end
  if line[KIND] == 'slots' then return slots_of(line[NAME]).all end
  return started(line)
end

local function add_slot(name, count)
  local found = slots_of(name)
  count = max(count, -found.own)
  found.own, found.all, found.changed = found.own + count, found.all + count, true
end

local function start(line, place, freed)
  local key = PREFIX .. line[NAME]
  if freed then redis.call('ZREM', key .. ':freed', freed) return end
  windows = windows + 1
  redis.call('ZADD', key, precise(place), batch .. ':' .. windows)
  redis.call('PEXPIRE', key, ttl_ms(place - now + line[CAPACITY] / line[RATE]))
end

local function take(lines)
  local admitted, seen, waits, places, freed = true, {}, {}, {}, {}
  for index, line in ipairs(lines) do
    local fits
    fits, waits[index], places[index], freed[index] = look_at[line[KIND]](line)
    admitted = admitted and fits
  end
  for index, line in ipairs(lines) do
    if admitted then
      if line[KIND] == 'bucket' then
        local bucket = buckets[line[NAME]]
        bucket.full_at, bucket.changed = places[index], true
      elseif line[KIND] == 'slots' then add_slot(line[NAME], 1)
      else start(line, places[index], freed[index]) end
    end
    seen[index] = see(line)
  end
  return {admitted, seen, waits, places}
end

local function give(lines)
  for _, line in ipairs(lines) do
    if line[KIND] == 'bucket' then
      local bucket = bucket_of(line)
      bucket.full_at, bucket.changed = max(now, bucket.full_at) - amount_of(line) / line[RATE], true
    elseif line[KIND] == 'slots' then add_slot(line[NAME], -1)
    else
      local key, place = PREFIX .. line[NAME] .. ':freed', line[PLACE]
      windows = windows + 1
      redis.call('ZADD', key, precise(place), batch .. ':' .. windows)
      redis.call('PEXPIRE', key, ttl_ms(place - now + line[CAPACITY] / line[RATE]))
    end
  end
end

local function beat(counts)
  redis.call('ZADD', LIVE, precise(now), process)
  redis.call('ZREMRANGEBYSCORE', LIVE, '-inf', precise(now - DEAD_AFTER_S))
  redis.call('PEXPIRE', LIVE, SLOTS_TTL_MS)
  for name, count in pairs(counts) do
    local found = slots_of(name)
    found.all, found.own, found.changed = found.all + count - found.own, count, true
  end
  return redis.call('ZRANGE', LIVE, 0, -1)
end

local function bye(names)
  for _, name in ipairs(names) do redis.call('HDEL', PREFIX .. name, process) end
  redis.call('ZREM', LIVE, process)
end

local answers = {}
for _, operation in ipairs(operations) do
  local what, argument = operation[1], operation[2]
  if what == 'take' then answers[#answers + 1] = take(argument)
  elseif what == 'give' then give(argument)
  elseif what == 'beat' then answers[#answers + 1] = beat(argument)
  else bye(argument) end
end
for name, bucket in pairs(buckets) do
  if bucket.changed then
    local state = struct.pack('<ddd', bucket.full_at, bucket.capacity, bucket.rate)
    redis.call('SET', PREFIX .. name, state, 'PX', ttl_ms(bucket.full_at - now))
  end
end
for name, found in pairs(slots) do
  if found.changed then
    if found.own > 0 then redis.call('HSET', PREFIX .. name, process, found.own) else redis.call('HDEL', PREFIX .. name, process) end
    redis.call('PEXPIRE', PREFIX .. name, SLOTS_TTL_MS)
  end
end
return cmsgpack.pack(answers)
"""
TAKE = TAKE.replace("__PREFIX__", PREFIX).replace("__EPOCH__", str(EPOCH)).replace("__DEAD__", str(DEAD_AFTER_S)).strip()

RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
