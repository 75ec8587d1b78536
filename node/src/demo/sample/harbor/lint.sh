# Slow on purpose, so that a push can overtake it.
for second in 1 2 3; do
  echo "reading the charts, $second of 3"
  sleep 0.7
done
! grep -rn '	' ships
