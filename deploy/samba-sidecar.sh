#!/bin/sh
# Runs smbd in the foreground: the share of deploy/samba/xray-inbox.conf, one user, xray, whose
# password is the content of the secret smb_password.
set -eu

cat >/etc/samba/smb.conf <<END
[global]
    server role = standalone server
    map to guest = never
    server min protocol = SMB2_10
    disable netbios = yes
    smb ports = 445
    load printers = no
    log file = /dev/stdout
    include = /etc/samba/xray-inbox.conf
END
id xray >/dev/null 2>&1 ||
    useradd --gid xray --no-create-home --shell /usr/sbin/nologin xray
password=$(cat /run/secrets/smb_password)
printf '%s\n%s\n' "$password" "$password" | smbpasswd -s -a xray
exec smbd --foreground --no-process-group --debug-stdout
