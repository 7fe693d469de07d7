n=$(cat n 2>/dev/null || echo 0)
n=$((n + 1))
printf %s "$n" > n
read -r text
sleep 0.03
printf %s "$n"
