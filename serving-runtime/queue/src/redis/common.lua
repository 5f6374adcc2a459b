-- Common to all scripts. KEYS[1] is the base of every key of one queue: `<prefix>:{<queue>}`; the braces keep the keys
-- in one slot of a cluster.
local B, GROUP, WAITING = KEYS[1], 'workers', 'waiting'
local STATS, CALLBACKS = B .. ':stats', B .. ':callbacks'
local PRIORITIES = {'high', 'normal', 'low'}
local ENDED = {succeeded = true, failed = true, dead = true, expired = true, cancelled = true}

-- The server's time in milliseconds: one clock for all workers.
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function job(id) return B .. ':job:' .. id end
local function stream(priority) return B .. ':jobs:' .. priority end
local function idem(key) return B .. ':idem:' .. key end
local function count(what, by) redis.call('HINCRBY', STATS, what, by or 1) end

-- Streams and groups are created on demand, also after a Redis that restarted empty.
local function group(s)
  local made = redis.pcall('XGROUP', 'CREATE', s, GROUP, '0', 'MKSTREAM')
  if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then error(made.err) end
end

local function entries()
  local n = 0
  for _, p in ipairs(PRIORITIES) do n = n + redis.call('XLEN', stream(p)) end
  return n
end

-- The entry of an ended job is deleted, so that the length of the stream is the number of queued and running jobs.
local function remove(priority, entry)
  redis.pcall('XACK', stream(priority), GROUP, entry)
  return redis.call('XDEL', stream(priority), entry)
end

local function fields(flat)
  local id, payload = '', ''
  for i = 1, #flat, 2 do
    if flat[i] == 'id' then id = flat[i + 1] elseif flat[i] == 'job' then payload = flat[i + 1] end
  end
  return id, payload
end
