-- Takes one job whose lease has expired. XAUTOCLAIM does the same in one command, but it examines at most ten entries
-- for each one that it may return, so it would not get past the held entries at the head of the list.
local consumer, lease = ARGV[1], ARGV[2]
for _, p in ipairs(PRIORITIES) do
  local s = stream(p)
  local idle = redis.pcall('XPENDING', s, GROUP, 'IDLE', lease, '-', '+', 1)
  if not idle.err then
    while idle[1] do
      local entry, deliveries = idle[1][1], idle[1][4]
      local got = redis.call('XCLAIM', s, GROUP, consumer, lease, entry)
      if got[1] then
        local id, payload = fields(got[1][2])
        return {p, entry, id, payload, deliveries + 1}
      end
      -- Its entry was deleted, and XCLAIM has removed it from the list.
      idle = redis.call('XPENDING', s, GROUP, 'IDLE', lease, '-', '+', 1)
    end
  end
end
return false
