-- Which buttons Argo CD offers.
local rollout = (obj.status or {}).rollout
local aborted = rollout ~= nil and rollout.stage == "Aborted"
local running = rollout ~= nil and not aborted

local actions = {}
actions["promote"] = { ["disabled"] = not running }
actions["promote-full"] = { ["disabled"] = not running }
actions["abort"] = { ["disabled"] = not running }
actions["retry"] = { ["disabled"] = not aborted }
actions["pause"] = { ["disabled"] = not running or rollout.pausedBy ~= nil }
actions["resume"] = { ["disabled"] = not running or rollout.pausedBy == nil }
return actions
