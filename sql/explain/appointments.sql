/*
help = "Appointments that were kept or missed, whose start lies in the window."
order = "starts_at, appointment_id"
*/
SELECT appointment_id, contact_id, calendar_id, status, starts_at, start_day
FROM appointments
WHERE location_id = $1 AND start_day BETWEEN $2 AND $3 AND status IN ('showed', 'noshow')
  AND NOT deleted
