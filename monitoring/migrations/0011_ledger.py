from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('monitoring', '0010_ledger_hours'),
    ]

    operations = [
        migrations.AddField(
            model_name='budgetaccount',
            name='carried',
            field=models.BigIntegerField(default=0, help_text='What entries amounted to that are not kept any more.'),
        ),
        migrations.AddIndex(
            model_name='budgetentry',
            index=models.Index(fields=['started_at'], name='budget_entry_started'),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='usage_refused',
            field=models.CharField(blank=True, help_text='What the vendor counted and why that was not believed, so that we counted.', max_length=200, verbose_name='refused counts'),
        ),
        migrations.AlterField(
            model_name='usagerecord',
            name='usage_source',
            field=models.CharField(choices=[('vendor', 'Vendor'), ('estimated', 'Estimated'), ('refused', 'Estimated: refused'), ('none', 'None')], max_length=12),
        ),
    ]
