local priority, entry, id, consumer, lease, delay = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local err, counts = ARGV[7], ARGV[8] == '1'
local s = stream(priority)
local mine = redis.call('XPENDING', s, GROUP, entry, entry, 1, consumer)
if not mine[1] then return 0 end
local deliveries = mine[1][4]
if not counts then deliveries = math.max(deliveries - 1, 0) end
-- It stays on the list of pending entries without a worker, and is taken when its lease expires, `delay` from now.
redis.call('XCLAIM', s, GROUP, WAITING, 0, entry, 'IDLE', math.max(lease - delay, 0), 'RETRYCOUNT', deliveries, 'JUSTID')
redis.call('HSET', job(id), 'status', 'queued')
if err ~= '' then redis.call('HSET', job(id), 'error', err) end
return 1
