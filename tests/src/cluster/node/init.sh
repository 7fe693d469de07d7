# The first process of a node. When it ends, the kernel ends everything in its PID namespace. Its words are the images to import.
mount --make-rprivate /
mount -t proc proc /proc
# One over which nothing is mounted: without it the kernel gives none to a container with users of its own.
mount -t proc proc "$NODE/proc"
# A sysfs of this network namespace, with the machine's control groups.
mount --bind /sys/fs/cgroup /mnt
for hierarchy in /sys/fs/cgroup/*/; do mount --bind "$hierarchy" "/mnt/$(basename "$hierarchy")"; done
mount -t sysfs sysfs /sys
mount --rbind /mnt /sys/fs/cgroup
umount -l /mnt
mount -t tmpfs tmpfs /run
# kubectl, kubelet and the like are in a cache that must stay visible; what they keep is in the node's own folder.
mount --bind "$NODE/lib" /var/lib
mount --bind "$NODE/log" /var/log
(cd "$NODE/settings" && find . -type f) | while read -r setting; do mount --bind "$NODE/settings/$setting" "/proc/sys/$setting"; done
mount --make-rshared /
hostname "$NAME"

ip link set lo up
until ip link set eth0 up 2>/dev/null; do sleep 0.01; done
ip address add "$ADDRESS/24" dev eth0
ip route add default via "$HOST"
while read -r route; do ip route add $route; done <<<"${ROUTES%$'\n'}"
echo 1 >/proc/sys/net/ipv4/ip_forward

declare -A names
run() {
    "${@:2}" >"$NODE/log/$1.log" 2>&1 &
    names[$!]=$1
}
run containerd containerd --config "$NODE/containerd.toml"
until ctr version >/dev/null 2>&1; do sleep 0.02; done
for image; do ctr --namespace k8s.io images import "$image" >/dev/null; done
run kubelet "$KUBERNETES/kubelet" --config="$NODE/kubelet.yaml" --kubeconfig="$NODE/system-node-$NAME.kubeconfig" --hostname-override="$NAME" \
    --node-ip="$ADDRESS" --cert-dir="$NODE/lib/kubelet/pki" --node-labels=type=real
run kube-proxy "$KUBERNETES/kube-proxy" --config="$NODE/proxy.yaml"
if [ "$CILIUM" ]; then
    mount -t bpf bpf /sys/fs/bpf
    mkdir /run/cilium
    # Its temporary files lie elsewhere than the configuration of the network, as in a container of its own: a file that is moved
    # there from the same disk is one whose coming containerd does not notice.
    export K8S_NODE_NAME=$NAME CILIUM_K8S_NAMESPACE=kube-system TMPDIR=/run/cilium
    if [ "$OPERATOR" ]; then
        run cilium-operator "$CILIUM/cilium-operator" --k8s-kubeconfig-path="$NODE/cilium.kubeconfig" --ipam=kubernetes \
            --operator-api-serve-addr=127.0.0.1:0 --enable-metrics=false
    fi
    # Services stay kube-proxy's, and the ways to other nodes' pods are there already.
    run cilium-agent "$CILIUM/cilium-agent" --k8s-kubeconfig-path="$NODE/cilium.kubeconfig" --ipam=kubernetes --enable-ipv4=true --enable-ipv6=false \
        --routing-mode=native --ipv4-native-routing-cidr="$PODS" --devices=eth0 --direct-routing-device=eth0 --kube-proxy-replacement=false \
        --enable-ipv4-masquerade=false --enable-l7-proxy=false --enable-hubble=false --enable-health-checking=false \
        --enable-endpoint-health-checking=false --identity-allocation-mode=crd --bpf-root=/sys/fs/bpf --state-dir=/run/cilium \
        --socket-path=/run/cilium/cilium.sock --cgroup-root=/run/cilium/cgroupv2 --lib-dir="$CILIUM" \
        --write-cni-conf-when-ready="$NODE/cni/05-cilium.conflist" --cni-log-file=/run/cilium/cni.log
fi
# A node without one of its daemons is none.
wait -n -p ended || true
echo "${names[$ended]} ended"
tail -n 12 "$NODE/log/${names[$ended]}.log"
exit 1
