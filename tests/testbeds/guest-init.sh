#!/bin/bash
# First process of the guest of guest.sh, never run by hand: $1 is the shared directory, $2 what
# to mount. Lays memory over the machine's files, mounts, then runs what is put into the spool.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
dir=$1 kind=$2

if [ -z "${GUEST_INSIDE:-}" ]; then
    mount -t proc proc /proc
    mount -t tmpfs -o mode=755,size=75% tmpfs /mnt
    mkdir -p /mnt/{upper,work,root}
    modprobe -d "$dir" overlay
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
    cd /mnt/root || exit 1
    for fs in proc:proc sysfs:sys devtmpfs:dev tmpfs:run; do
        mount -t "${fs%:*}" none "${fs#*:}"
    done
    mkdir -p dev/pts dev/shm mnt
    mount -t devpts none dev/pts
    mount -t tmpfs -o mode=1777 none dev/shm
    mount -t hostfs -o "$dir" none "./$dir"
    GUEST_INSIDE=1 exec chroot . "$0" "$dir" "$kind"
fi

ln -sfn /proc/self/fd /dev/fd
ip link set lo up
mkdir -p /lib/modules
ln -sfn "$dir/lib/modules/$(uname -r)" "/lib/modules/$(uname -r)"
ulimit -n 65536

quotas() { # $1: type, $2: place
    modprobe -aq "$1" quota_v2 || true
    mkdir -p "$2"
    mount -t "$1" -o prjquota /dev/ubda "$2"
    chmod 1777 "$2"
}

# The kernel's server, and what it needs. Short leases: locks wait for nobody.
serve() {
    modprobe -aq nfsd nfs nfsv3 nfsv4 lockd || true
    mount -t nfsd nfsd /proc/fs/nfsd
    mkdir -p /run/rpcbind /run/rpc_pipefs /var/lib/nfs/{v4recovery,nfsdcld}
    touch /var/lib/nfs/{etab,rmtab}
    mount -t rpc_pipefs rpc /run/rpc_pipefs
    rpcbind -w || true
    rpc.statd --no-notify || true
    nfsdcld || true
    for time in nfsv4leasetime nfsv4gracetime; do echo 10 >/proc/fs/nfsd/$time; done
    echo 3 >/proc/sys/fs/nfs/nlm_timeout
    echo 3 >/proc/sys/fs/nfs/nlm_grace_period
    exportfs -o rw,no_root_squash,no_subtree_check,insecure,fsid=0 127.0.0.1:/mnt/under
    rpc.nfsd -V 3 -V 4.2 4
    rpc.mountd -p 20048
    echo Y >/proc/fs/nfsd/v4_end_grace || true
}

# A cluster on a file system of its own, in memory, and the kernel's client.
ceph() {
    local here port
    here=$(dirname "$0")
    modprobe -aq ceph || true
    mkdir -p /run/ceph-bed "/mnt/$kind"
    CEPH_CLIENT=none CEPH_SECONDS=220 bash "$here/cephfs.sh" up /run/ceph-bed
    port=$(sed -n 's/^mon host = 127.0.0.1:\([0-9]*\).*/\1/p' /run/ceph-bed/ceph/conf)
    timeout 60 mount -i -t ceph "127.0.0.1:$((port + 1)):/" "/mnt/$kind" -o name=admin
    chmod 1777 "/mnt/$kind"
}

mount_kind() {
    case $kind in
    ceph*) ceph ;;
    xfs-*) quotas xfs "/mnt/$kind" ;;
    ext4-*) quotas ext4 "/mnt/$kind" ;;
    nfs4 | nfs3)
        quotas xfs /mnt/under && serve
        mkdir -p "/mnt/$kind"
        set -- vers=4.2 /
        [ "$kind" = nfs4 ] || set -- vers=3,mountport=20048 /mnt/under
        [ -z "$(cat "$dir/spool/nfs-options")" ] || set -- "$1,$(cat "$dir/spool/nfs-options")" "$2"
        timeout 40 mount -t nfs -o "$1,retry=0" "127.0.0.1:$2" "/mnt/$kind"
        ;;
    *) false ;;
    esac && mountpoint -q "/mnt/$kind"
}

cd "$dir/spool" || exit 1
rc=0
mount_kind >up.out 2>&1 || rc=$?
echo $rc >up.new
mv up.new up
while [ ! -e off ]; do
    for job in *.cmd; do
        [ -e "$job" ] || continue
        job=${job%.cmd}
        mv "$job.cmd" "$job.run"
        # The machine's files may have changed since they were read.
        echo 3 >/proc/sys/vm/drop_caches
        {
            rc=0
            bash "$job.run" >"$job.out" 2>&1 </dev/null || rc=$?
            echo $rc >"$job.rc"
        } &
    done
    sleep 0.05
done
umount -a -t nfs,nfs4 -l || true
sync
echo o >/proc/sysrq-trigger
sleep 9
