# Every ship needs a name and a positive draught.
status=0
for ship in ships/*; do
  echo "checking $ship"
  grep -q '^name: .' "$ship" || { echo "FAIL $ship: no name"; status=1; }
  grep -Eq '^draught: [1-9][0-9]*$' "$ship" || { echo "FAIL $ship: no draught"; status=1; }
done
printf '<testsuite tests="1" failures="%s"><testcase name="ships"/></testsuite>\n' "$status" > "$ARTIFACTS/junit_ships.xml"
exit $status
