#!/bin/sh
# Runs smbd in the foreground: the share of deploy/samba/xray-inbox.conf, one user, xray, whose
# password is the content of the secret smb_password. It writes below /run alone, for the rest of
# the container may be read only.
set -eu

place=/run/samba-sidecar
install -d -m 755 "$place"
for folder in lock state cache pid ncalrpc; do install -d -m 755 "$place/$folder"; done
install -d -m 700 "$place/private"
cat >"$place/smb.conf" <<END
[global]
    server role = standalone server
    map to guest = never
    server min protocol = SMB2_10
    disable netbios = yes
    smb ports = 445
    load printers = no
    log file = /dev/stdout
    private dir = $place/private
    lock directory = $place/lock
    state directory = $place/state
    cache directory = $place/cache
    pid directory = $place/pid
    ncalrpc dir = $place/ncalrpc
    include = /etc/samba/xray-inbox.conf
END
password=$(cat /run/secrets/smb_password)
printf '%s\n%s\n' "$password" "$password" | smbpasswd -c "$place/smb.conf" -s -a xray
exec smbd --configfile="$place/smb.conf" --foreground --no-process-group --debug-stdout
